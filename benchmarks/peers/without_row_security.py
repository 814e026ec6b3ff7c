"""The service as it would be without row level security: the query comes alone, from a role that sees all."""

import os

from medmitra_cases import dao, serving
from medmitra_cases.settings import Settings

dao.READ_CASES = dao.SELECT_CASES

if __name__ == "__main__":
    serving.serve(Settings.from_environ(os.environ), print)
