"""The control protocol: typed messages and their authenticated envelope. No sockets in here."""
