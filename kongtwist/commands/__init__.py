"""The command ``kongtwist``, and the pages written from declarations."""
