"""The service as it would be without row level security: the query comes alone, from a role that sees all."""

import os

from medmitra_cases.dao import statements
from medmitra_cases.server import serve
from medmitra_cases.settings.settings import Settings

statements.WHOLE_LIST = statements.WHOLE_LIST._replace(read=statements.SELECT_CASES)

if __name__ == "__main__":
    serve(Settings.from_environ(os.environ), print)
