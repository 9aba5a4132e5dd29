"""The Open Inference Protocol v2, as the agents speak it too: see `agent.contract.oip`."""

from agent.contract.oip import ProtocolError, Request, datatype, decode, encode, from_user
from agent.contract.oip_names import HEADER_LENGTH

__all__ = ["HEADER_LENGTH", "ProtocolError", "Request", "datatype", "decode", "encode", "from_user"]
