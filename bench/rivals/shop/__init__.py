"""Rival: the payout system as a Django project with Django REST framework and Celery, as most would write it.

The same endpoint with an API key, limits per key and per user in Redis, validation, the balance check, and
one transaction through the ORM. A Celery task for each withdrawal: one transaction before the provider's call
and one after it. A view that stores each webhook, and a task for each with one transaction. A worker that
dies, a lost reply and a webhook that comes twice do no harm. It lacks what most leave out: approvals, blocks,
pauses, a pace, sealed events, look-ups, reconciliation, a panel. So it has less to do than ours.

Where most would choose something slower, it has the faster: counters with INCR in place of Django REST
framework's lists of timestamps, one JSON renderer, no session or CSRF middleware, connections that stay open.
"""
