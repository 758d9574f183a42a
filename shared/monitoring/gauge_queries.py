"""The gauges' database queries. Each reads an index over open or recent rows."""

from sqlalchemy import text

# A withdrawal that waits for the rate limit is late once its promised time has passed, or if no worker calls
# at all.
LATENESS = text("""
    SELECT count(*) AS number, greatest(0, coalesce(extract(epoch FROM now() - min(CASE
        WHEN status_reason = 'paced' AND trying_since IS NULL THEN greatest(due_at, least(expected_by,
            (SELECT next_at FROM pace WHERE name = :provider)))
        ELSE due_at END)), 0)) AS seconds
    FROM withdrawals WHERE status IN ('pending', 'processing') AND due_at <= now()
""")
WEBHOOKS = text("""
    SELECT (SELECT count(*) FROM webhook_events WHERE applied_at IS NULL) AS waiting,
           (SELECT extract(epoch FROM max(received_at)) FROM webhook_events) AS last
""")
BALANCE = text("""
    SELECT available_paise, extract(epoch FROM seen_at) AS seen_at FROM provider_balances
    WHERE account_number = :account
""")
DELIVERIES = text("""
    SELECT (SELECT count(*) FROM deliveries WHERE state = 'waiting') AS waiting,
           (SELECT count(*) FROM deliveries WHERE state = 'failed') AS failed,
           (SELECT extract(epoch FROM now() - min(created_at)) FROM deliveries WHERE state = 'waiting')
               AS oldest,
           (SELECT count(*) FROM endpoints WHERE failing_since IS NOT NULL AND removed_at IS NULL) AS failing
""")
# Without a listener there is no row, or no cursor, and nothing waits.
UNSEEN_EVENTS = text("""
    SELECT "to", extract(epoch FROM now() - (SELECT e.created_at FROM withdrawal_events e
                                             WHERE e.id > followed_to ORDER BY e.id LIMIT 1)) AS seconds
    FROM (SELECT 'apps' AS "to", min(followed_to) AS followed_to FROM endpoints WHERE removed_at IS NULL
          UNION ALL SELECT 'users', followed_to FROM mail_listeners WHERE name = 'users' AND :mails) listening
""")
MAILS = text("""
    SELECT (SELECT count(*) FROM emails WHERE state = 'waiting') AS waiting,
           (SELECT count(*) FROM emails WHERE state = 'failed') AS failed,
           EXISTS (SELECT FROM emails WHERE server_failed_at IS NOT NULL) AS is_failing
""")
SPOT_CHECKS = text("""
    SELECT promise, sum(faults) AS faults, extract(epoch FROM min(asked_at)) AS asked_at,
           min(asked_at) AS checked_at
    FROM spot_checks GROUP BY promise ORDER BY promise
""")
# A withdrawal was promised within `:promise` seconds when it began to await approval: its age follows from
# that.
OLDEST_REVIEWS = text("""
    SELECT (SELECT extract(epoch FROM now() - min(expected_by)) + :promise FROM withdrawals
            WHERE status = 'pending' AND awaits_approval IS NOT NULL AND status_reason = 'awaiting_review')
               AS withdrawals,
           (SELECT extract(epoch FROM now() - min(proposed_at)) FROM resolutions WHERE decided_at IS NULL)
               AS decisions,
           (SELECT extract(epoch FROM now() - min(proposed_at)) FROM adjustments WHERE decided_at IS NULL)
               AS coins
""")
