"""A program for `test_credit_scrapy.py`: a Scrapy crawl on credit of a publisher that the same process runs.

Prints one JSON line: what the publisher saw, what the crawl got, and what the journal holds.
"""

from __future__ import annotations

import json
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


def main(journal: Path) -> None:
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
            "FARTHING_BUYER": lambda _crawler: buyer,
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
    main(Path(sys.argv[1]))
