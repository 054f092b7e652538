"""The protocol between our processes: messages, payloads and what they carry.

It imports only the standard library, and cloudpickle on demand.
"""
