"""The node's HTTP API.

listener        ports, TLS, nothing without a decision
authn authz     who asks, and may they
routes          what is answered
container_logs log_files   kubectl logs
streams tunnel  kubectl exec, attach, cp, port-forward: joined to the runtime's streaming server
settings        what the server is told and what it needs (ServerConfig, ServerBackend, ApiReviews)
"""
