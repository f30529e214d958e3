"""Layercast operator: reconciles DisaggregatedLLM resources."""
