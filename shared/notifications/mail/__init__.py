"""Mail: users learn how their withdrawals ended, operators learn of new exception records.

    create_mails                     a mail for each withdrawal that ended     user_mails.py, recipients.py
                                     one a minute for new exception records    operator_mails.py
    claim  send  record              one attempt                               send.py
    take_turn                        several attempts over one connection      dispatcher.py
    compose                          the text                                  texts.py, templates/
    SmtpClient                       the connection to SMTP_HOST               smtp.py
    retry  give_up_expired  delete_old    operators and the schedule           mails.py

Each mail is sent once: the database accepts one row for an event and a recipient. There is one exception. If
the server accepted a mail and we crashed, or lost its reply, before recording that, we send it again under
the same Message-ID, by which servers and mail programs drop the duplicate: a user who never hears about their
money is worse off than one who hears twice. After a second attempt without a reply we give up.
"""
