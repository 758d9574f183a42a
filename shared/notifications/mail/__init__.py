"""Mail: users are told how their withdrawals ended, operators of new exception records.

    follow                           a mail for each user's news            users.py, recipients.py
                                     one for many records, each minute      operators.py
    claim  send  record              one mail's next try                    sending.py
    take_turn                        many of them over one connection       turns.py
    letter                           the words                              letters.py, templates/
    Server                           the wire to SMTP_HOST                  smtp.py
    give_up  retry  forget_old       what people and the clock do with it   keeping.py

All of it happens after the fact: what pays knows nothing of it, and never waits for it. By design each mail
goes out once: the database takes one row for an event and a recipient. It may arrive twice in one case: the
server took it, and we died, or lost its answer, before that was written down. Then it goes out again, for a
user who was not told of his money is worse off than one who was told twice, and under the same Message-ID,
by which servers and mail programs drop the second. A server that twice gives no answer to a whole mail does
not get it a third time.
"""
