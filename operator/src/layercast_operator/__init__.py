"""Layercast operator: keeps the children of every DisaggregatedLLM as its spec says.

Layers, outermost first; each imports only what is below it (import-linter checks):

    wiring    kopf handlers, settings, health, metrics, command line
    engine    queue, store, server-side apply, lease: everything that waits or talks
    desired, rollout, status    pure: (resource, observed children) → children, plan, status
    presets   types of the platform presets
    api       the resource, its conditions, its kinds: types and names only

The operator is never in the path of a request: with it gone, what serves goes on serving.
"""
