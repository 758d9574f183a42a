"""Webhooks to apps: the endpoints, a delivery for each change, and how each delivery is sent.

endpoints     the URLs that apps registered: add, rotate the secret, remove
fan_out       a delivery for each change and each endpoint
dispatcher    which endpoint's deliveries are sent next
send          one attempt: claim, send, record
deliveries    what operators and the schedule do with them: list, replay, delete
payloads      the body of a delivery
http, signing the request to an app
"""
