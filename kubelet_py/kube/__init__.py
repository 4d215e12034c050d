"""The API server: kubeconfig, client, watches, and the stores that watches fill.

Knows HTTP and the Kubernetes API conventions; knows nothing of pods' lifecycles.
"""
