"""An MCP server as many people write them: FastMCP, a search and a page, over a few pages that it holds itself.

Tests run it: it listens on a free port of loopback, or on LISTEN_PORT, and says where.
"""

import asyncio
import os
import socket

import uvicorn
from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from pydantic import BaseModel

PAGES = {
    "backups": "Backups run every night at two. A restore is tried out on the first Monday of each month.",
    "deploys": "Deploys go out from the main branch. A rollback is the deploy of the commit before.",
    "on-call": "Whoever is on call answers within fifteen minutes, and writes down what happened.",
}

mcp = FastMCP("docs")
reads = {"readOnlyHint": True, "openWorldHint": False}


class Found(BaseModel):
    """A page that was found."""

    id: str
    excerpt: str


@mcp.tool(annotations=reads)
def search(query: str) -> list[Found]:
    """Searches the documentation for pages about something."""
    words = query.lower().split()
    return [
        Found(id=page, excerpt=text[:40])
        for page, text in PAGES.items()
        if any(word in page or word in text.lower() for word in words)
    ]


@mcp.tool(annotations=reads)
def get_page(id: str) -> str:
    """Reads a page of the documentation."""
    if id not in PAGES:
        raise ToolError(f"there is no page {id}")
    return PAGES[id]


@mcp.tool(annotations=reads)
async def survey(pages: int, context: Context) -> str:
    """Reads all pages slowly, and says how far it is."""
    for page in range(pages):
        await context.report_progress(page + 1, pages, f"page {page + 1}")
        await asyncio.sleep(0.05)
    return f"{pages} pages were read"


async def serve() -> None:
    """Serves until it is stopped."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(os.environ.get("LISTEN_PORT", "0"))))
    listener.listen()
    print(f"listening at http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(mcp.http_app(path="/mcp"), log_level="warning", lifespan="on", timeout_graceful_shutdown=1)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(serve())
