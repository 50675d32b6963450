"""The generated blocks of the README: every number in it comes from the published records."""


