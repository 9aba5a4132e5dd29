"""The Open Inference Protocol v2, as the agents speak it too: see `agent.contract.oip`."""

from agent.contract.oip import (
    HEADER_LENGTH as HEADER_LENGTH,
)
from agent.contract.oip import (
    ProtocolError as ProtocolError,
)
from agent.contract.oip import (
    Request as Request,
)
from agent.contract.oip import (
    datatype as datatype,
)
from agent.contract.oip import (
    decode as decode,
)
from agent.contract.oip import (
    encode as encode,
)
from agent.contract.oip import (
    from_user as from_user,
)
