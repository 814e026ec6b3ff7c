"""The command ``medmitra-cases``. ``main`` in ``main.py`` is its entry point."""
