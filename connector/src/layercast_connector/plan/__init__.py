"""Pure planning: numbers in, block ranges and descriptors out. No clocks, no sockets, no devices."""
