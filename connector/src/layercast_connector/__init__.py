"""Layercast connector: layer-by-layer KV streaming for vLLM."""
