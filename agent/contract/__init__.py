"""What the controller and its agents say to each other: topics, messages, manifests, signatures.

Everything here runs on the base install and imports neither paho-mqtt nor an interpreter. Only `golden`
imports numpy, so that the supervisor can use the rest without it.
"""
