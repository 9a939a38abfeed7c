"""Other people's formats and protocols, translated at the border into our values. They do not know each other."""
