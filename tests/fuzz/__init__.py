"""Requests that no client should send, made of the contract itself: every field, missing or with anything in it."""
