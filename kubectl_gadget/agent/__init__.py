"""The part that runs on a node: libbpf, ring buffers, containers, one trace session. Standard library and libbpf only.

It knows neither Kubernetes nor any gadget. `python -I -m kubectl_gadget.agent` is its only entry point. Keep this file
empty: the pod's main process imports the package too, and has to stay small.
"""
