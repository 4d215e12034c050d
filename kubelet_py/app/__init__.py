"""The composition root: makes every part from the settings, connects them, runs them, ends them in order.

run           start, life and end of the agent
node_view     the node as pods' configuration sees it
pod_objects   API objects that pods refer to
backend       what the HTTP server shows
"""
