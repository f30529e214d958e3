"""The prefill side: what is pushed when, and the threads that push it."""
