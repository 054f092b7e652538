"""The protocol between our processes: messages, payloads and what they carry."""
