"""Moving bytes: the transfer engine and the proof that bytes arrived. No meaning, no protocol."""
