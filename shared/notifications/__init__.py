"""Apps are told of each change of a withdrawal, by webhooks in the Standard Webhooks format; people by mail.

    add  rotate  remove     where apps listen                      endpoints.py
    follow                  a delivery for each change             positions.py, following.py, bodies.py
    claim  send  record     one delivery's next try                delivering.py
    due  take_turn          which of them, and in which order      turns.py
    replay  forget_old      what people and the clock do with it   keeping.py
    post                    the wire to an app                     wire.py, lines.py, addresses.py, signing.py
    mail/                   users and operators, by mail           a house of its own

All of it happens after the fact: what pays knows nothing of it, and never waits for it.
"""
