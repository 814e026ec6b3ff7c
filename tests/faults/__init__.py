"""What becomes of requests while Postgres, the network, nginx or the service itself fails."""
