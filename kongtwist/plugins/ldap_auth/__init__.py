"""ldap-auth: let clients in whom a directory knows by name and password. Kong 3.9 `ldap-auth`."""

from .ldap_phases import LDAPAuth

__all__ = ["LDAPAuth"]
