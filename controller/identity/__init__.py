"""Who is who: the CA, devices and what they joined with, users' programs, API keys."""
