"""The relocated sync: device events, and the gate that hands a layer to the sender only behind its event."""
