"""How an app's folder is selected and exchanged: one file per platform, chosen in `native` alone."""
