"""The application for a WSGI server that loads it before it forks: it has served one request already."""

import os

from medmitra_cases import create_app

app = create_app()
app.test_client().get(
    os.environ["WARM_UP_TARGET"],
    headers={"Authorization": os.environ["WARM_UP_AUTHORIZATION"], "X-Request-ID": "warm-up"},
)
