"""Who calls, and how often: the API key, and the limits per key and per user, counted in Redis."""

import hashlib
import hmac
import time
from functools import cache

import redis
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle


class KeyAuthentication(BaseAuthentication):
    """The app's key, compared in constant time."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, str]:
        """Return the caller. Raises AuthenticationFailed."""
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(hashlib.sha256(key.encode()).digest(), _key_digest()):
            raise AuthenticationFailed("The API key is not valid")
        return AnonymousUser(), key


@cache
def _key_digest() -> bytes:
    return hashlib.sha256(settings.API_KEY.encode()).digest()


counters = redis.Redis.from_url(settings.REDIS_URL)  # it connects at its first use


class WindowThrottle(SimpleRateThrottle):
    """A counter for each key and window, in one round trip.

    The base class keeps a list of timestamps instead, which it reads and writes whole for each request.
    """

    def allow_request(self, request: Request, view: object) -> bool:
        """Count the request; False if it is over the limit."""
        window = int(time.time() // self.duration)
        key = f"{self.get_cache_key(request, view)}:{window}"
        pipeline = counters.pipeline(transaction=False)
        pipeline.incr(key)
        pipeline.expire(key, self.duration)
        count, _ = pipeline.execute()
        return bool(count <= self.num_requests)

    def wait(self) -> float:
        """Seconds until the next window."""
        return float(self.duration - time.time() % self.duration)


class KeyThrottle(WindowThrottle):
    """Requests per key."""

    scope = "key"

    def get_cache_key(self, request: Request, view: object) -> str:
        """Return the key under which requests are counted."""
        return f"limit:key:{request.auth}"


class UserThrottle(WindowThrottle):
    """Requests per user."""

    scope = "user"

    def get_cache_key(self, request: Request, view: object) -> str:
        """Return the key under which requests are counted."""
        return f"limit:user:{request.data.get('user_id')}"
