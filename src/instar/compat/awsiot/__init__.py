"""AWS IoT Jobs over MQTT, on any broker: devices written for it work unchanged. Topics, payloads, and who runs them."""
