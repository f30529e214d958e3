"""Builds Layercast's images: `python -m images.build`. Standard library only, beside the tools that it calls."""
