"""Where vLLM's own types are read: facts about the engine, how the halves are built, how counts reach `/metrics`."""
