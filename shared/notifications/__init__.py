"""Apps and people learn of changes after they are committed: payments never wait for a notification.

event_cursor   how far each subscriber has read the events, so that it gets each change once
outbox         what webhooks and mail share: lease, attempt, backoff, giving up, replay
webhooks/      each change to each app's endpoints, in the Standard Webhooks format
mail/          users and operators, by mail
"""
