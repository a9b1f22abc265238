"""A program for `test_credit_scrapy.py`: a Scrapy crawl on credit of a publisher that the same process runs.

Prints one JSON line: what the publisher saw, what the crawl got, and what the journal holds.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import scrapy
from publisher import AGENT_KEY, AGENT_ORIGIN, NETWORK, PAGE, publishing
from scrapy.crawler import CrawlerProcess

from farthing.buyer import Policy
from farthing.clients import Buyer
from farthing.world.agent_keys import AgentSigner
from farthing.world.directories import Directories

PAGES = 12


def by_settings(journal: Path, origin: str) -> dict[str, Any]:
    """Settings as a project's file has them; the key stands in the environment."""
    os.environ["FARTHING_AGENT_KEY"] = "07" * 32
    return {
        "FARTHING_POLICY": {"networks": [NETWORK], "per_request": "$0.01", "private_hosts": ["127.0.0.1"]},
        "FARTHING_JOURNAL": str(journal),
        "FARTHING_AGENT": AGENT_ORIGIN,
        "FARTHING_DIRECTORIES": [origin],
    }


def main(journal: Path, *, from_settings: bool) -> None:
    with publishing() as publisher:
        buyer = Buyer(
            agent=AgentSigner(AGENT_ORIGIN, AGENT_KEY),
            policy=Policy(networks=[NETWORK], per_request="$0.01", private_hosts=["127.0.0.1"]),
            journal=journal,
            directories=Directories(allowed=[publisher.origin]),
        )
        got: list[bytes] = []

        class Spider(scrapy.Spider):
            name = "credit"

            def parse(self, response: Any, **_more: Any) -> Any:
                got.append(response.body)
                if response.url.endswith("/0"):
                    yield from (response.follow(f"/{page}") for page in range(1, PAGES))
                if response.url.endswith("/5"):
                    publisher.amount = "3000"

        settings = {
            "LOG_LEVEL": "ERROR",
            "TELNETCONSOLE_ENABLED": False,
            "TWISTED_REACTOR": "twisted.internet.asyncioreactor.AsyncioSelectorReactor",
            "DOWNLOADER_MIDDLEWARES": {"farthing.clients.scrapy.PayingMiddleware": 560},
            **(by_settings(journal, publisher.origin) if from_settings else {"FARTHING_BUYER": lambda _crawler: buyer}),
        }
        process = CrawlerProcess(settings)
        process.crawl(Spider, start_urls=[f"{publisher.origin}/0"])
        process.start()
        said = {
            "pages": sum(body == PAGE for body in got),
            "unpaid": publisher.unpaid,
            "served": len({each.commitment_id for each in publisher.served}),
            "servings": len(publisher.served),
            "settled": sum(each.purchase.state == "settled" for each in buyer.journal.promises()),
        }
        buyer.close()
    print(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]), from_settings="settings" in sys.argv[2:])
