"""acme: get certificates from a certificate authority, and renew them. Kong 3.9 `acme`."""

from .acme_fields import ACME_STORAGE
from .acme_phases import Acme

__all__ = ["ACME_STORAGE", "Acme"]
