"""The decode side: who prefills, where the KV lands, and when it may be used."""
