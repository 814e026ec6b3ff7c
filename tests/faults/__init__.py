"""Tests what happens to requests while Postgres, the network, nginx or the service itself fails."""
