"""Properties of kong.conf for ``database = postgres``; part of config/properties.py by length only."""

from __future__ import annotations

from .kinds import BOOLEAN, DATABASE, INTEGER, NUMBER, STRING, Property, same_as

__all__ = ["Postgres", "PostgresCopy"]


class Postgres:
    """PostgreSQL, for database = postgres."""

    pg_host = Property(
        STRING, "127.0.0.1", "Name or address of the server, or the folder of its Unix socket.", restart=DATABASE
    )
    pg_port = Property(INTEGER.within(1, 65535), "5432", "Its port.", restart=DATABASE)
    pg_database = Property(
        STRING, "kong", "The database. Our tables (kongtwist_...) can lie beside Kong's own.", restart=DATABASE
    )
    pg_schema = Property(
        STRING,
        None,
        "The schema of our tables; without it the first of the user's search path, which is public.",
        restart=DATABASE,
    )
    pg_user = Property(STRING, "kong", "The user.", restart=DATABASE)
    pg_password = Property(STRING, None, "The user's password. Never logged nor shown.", restart=DATABASE)
    pg_timeout = Property(
        INTEGER.within(1),
        "5000",
        "Milliseconds that making a connection, or a single operation, may take. A server that has not answered then"
        " counts as away: changes are refused at once (503) until it is back, and traffic goes on. Reading or writing"
        " very much gets more.",
        restart=DATABASE,
    )
    pg_ssl = Property(
        BOOLEAN,
        "off",
        "Speak TLS with the server. A server that cannot is not used (Kong goes on without TLS).",
        restart=DATABASE,
    )
    pg_ssl_verify = Property(
        BOOLEAN,
        "off",
        "With pg_ssl: check the server's certificate (lua_ssl_trusted_certificate), and that it names pg_host.",
        restart=DATABASE,
    )
    pg_pool_size = Property(
        INTEGER.within(1),
        None,
        "Connections of a node to the server at the most, beside the one on which it hears of other nodes' changes."
        " Without a value 4.",
        restart=DATABASE,
    )
    pg_max_concurrent_queries = Property(
        INTEGER.within(0),
        "0",
        "Queries of a node at once at the most; 0: as many as it may have connections.",
        restart=DATABASE,
    )
    pg_semaphore_timeout = Property(
        INTEGER.within(1),
        "60000",
        "Milliseconds that a query waits for a free connection before it fails.",
        restart=DATABASE,
    )
    pg_backlog = Property(
        INTEGER.within(0),
        None,
        "Queries that may wait for a free connection; more fail at once. Without a value 1000.",
        restart=DATABASE,
    )
    pg_keepalive_timeout = Property(
        INTEGER.within(1),
        None,
        "Milliseconds after which an idle connection is closed. Without a value 60000.",
        restart=DATABASE,
    )
    db_update_frequency = Property(
        NUMBER.within(0.1),
        "5",
        "Seconds between two looks for changes of other nodes. Those are told at once by NOTIFY; this is for where"
        " notifications do not arrive (a pooler between).",
        restart=DATABASE,
    )
    db_update_propagation = Property(
        NUMBER.within(0),
        "0",
        "With pg_ro_host: seconds that a change of another node may take to get there. So long this node looks for it there"
        " before it asks pg_host. 0: it asks pg_host at once.",
        restart=DATABASE,
    )
    pg_changes_kept = Property(
        INTEGER.within(1),
        "10000",
        "Changes that are kept in the database, so that a node that was away can read what it missed (our own name)."
        " One that missed more reads everything.",
        restart=DATABASE,
    )


class PostgresCopy:
    """A read-only copy of the PostgreSQL database."""

    pg_ro_host = Property(
        STRING,
        None,
        "Name or address of a server with a copy of the database, such as a streaming replica, or the folder of its Unix socket."
        " Rows are read from there. It may be behind: what it does not have yet is read from pg_host, to which every change goes,"
        " too, so that the Admin API's answers are no older. Where the copy cannot be reached, pg_host is read in its place; where"
        " pg_host is away, nodes start from the copy and follow it, and changes are refused. One that surely is no copy stops the"
        " start. Without a value everything is read from pg_host.",
        restart=DATABASE,
    )
    pg_ro_port = same_as("pg_port", INTEGER.within(1, 65535), "the copy", restart=DATABASE)
    pg_ro_database = same_as("pg_database", STRING, "the copy", restart=DATABASE)
    pg_ro_schema = same_as("pg_schema", STRING, "the copy", restart=DATABASE)
    pg_ro_user = same_as("pg_user", STRING, "the copy", restart=DATABASE)
    pg_ro_password = same_as("pg_password", STRING, "the copy", restart=DATABASE)
    pg_ro_timeout = same_as("pg_timeout", INTEGER.within(1), "the copy", restart=DATABASE)
    pg_ro_ssl = same_as("pg_ssl", BOOLEAN, "the copy", restart=DATABASE)
    pg_ro_ssl_verify = same_as("pg_ssl_verify", BOOLEAN, "the copy", restart=DATABASE)
    pg_ro_pool_size = same_as("pg_pool_size", INTEGER.within(1), "the copy", restart=DATABASE)
    pg_ro_max_concurrent_queries = same_as("pg_max_concurrent_queries", INTEGER.within(0), "the copy", restart=DATABASE)
    pg_ro_semaphore_timeout = same_as("pg_semaphore_timeout", INTEGER.within(1), "the copy", restart=DATABASE)
    pg_ro_backlog = same_as("pg_backlog", INTEGER.within(0), "the copy", restart=DATABASE)
    pg_ro_keepalive_timeout = same_as("pg_keepalive_timeout", INTEGER.within(1), "the copy", restart=DATABASE)
