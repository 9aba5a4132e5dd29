"""FastAPI and nothing else: raw bytes in, raw bytes out. Usage: PYTHON fastapi_alone.py MODEL PORT."""

import sys
from pathlib import Path

import numpy as np
import uvicorn
from ai_edge_litert.interpreter import Interpreter
from fastapi import FastAPI, Request, Response

app = FastAPI()
interpreter = Interpreter(model_content=Path(sys.argv[1]).read_bytes(), num_threads=1)
interpreter.allocate_tensors()
into, out_of = interpreter.get_input_details()[0], interpreter.get_output_details()[0]


@app.post("/infer")
async def infer(request: Request) -> Response:
    row = np.frombuffer(await request.body(), into["dtype"])
    interpreter.set_tensor(into["index"], row.reshape(into["shape"]))
    interpreter.invoke()
    return Response(interpreter.get_tensor(out_of["index"]).tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
