"""Look up what a model costs at a provider, in the table of genai-prices (offline; an optional dependency).

Gives prices only if the table has this model at this provider, and the same price at any hour and for any length of a
prompt that we send; nothing is guessed from a similar name.
"""

from __future__ import annotations

import datetime
import re
import urllib.parse
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import version

PACKAGE = "genai-prices"
MILLION = 1_000_000
# lengths of a prompt, and hours, between which prices must not differ
PROMPT_TOKENS = (1_000, 100_000)
HOURS = range(0, 24, 3)
# what is named there is the user's deployment, not a model
UNKNOWN_PROVIDERS = frozenset({"azure"})


@dataclass(frozen=True, slots=True)
class KnownPrices:
    """Dollars per million tokens, and the table that they are from."""

    prompt: float
    cached_prompt: float
    completion: float
    source: str


def known_prices(url: str, model: str) -> KnownPrices | None:
    """The prices of a model at the API with this base URL; None if they are not known for certain."""
    host = urllib.parse.urlsplit(url).hostname or ""
    if "." not in host or host.replace(".", "").isdecimal():
        return None  # a machine of the user's own: spares the import
    try:
        import genai_prices
    except ImportError:
        return None
    today = datetime.datetime.now(datetime.timezone.utc)
    found: set[tuple[Decimal, Decimal, Decimal]] = set()
    for hour in HOURS:
        for tokens in PROMPT_TOKENS:
            usages = (
                genai_prices.Usage(input_tokens=tokens),
                genai_prices.Usage(input_tokens=tokens, cache_read_tokens=tokens),
                genai_prices.Usage(output_tokens=tokens),
            )
            try:
                results = [
                    genai_prices.calc_price(
                        usage, model, provider_api_url=url, genai_request_timestamp=today.replace(hour=hour)
                    )
                    for usage in usages
                ]
            except (LookupError, ValueError):
                return None
            if results[0].provider.id in UNKNOWN_PROVIDERS or not _is_host(results[0].provider.api_pattern, url):
                return None
            prompt, cached, completion = (result.total_price * MILLION / tokens for result in results)
            found.add((prompt, cached, completion))
    if len(found) != 1:
        return None
    dollars = [float(price) for price in found.pop()]
    return KnownPrices(dollars[0], dollars[1], dollars[2], f"{PACKAGE} {version(PACKAGE)}")


def _is_host(pattern: str, url: str) -> bool:
    """Whether a provider's pattern, which is open at its end, covers the whole host and not a part of another."""
    match = re.match(pattern, url)
    rest = url[match.end() :] if match else "?"
    return match is not None and (match[0].endswith((".", "/")) or not re.match(r"[\w.-]", rest))
