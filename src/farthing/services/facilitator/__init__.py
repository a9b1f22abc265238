"""The facilitator as a service: in the process (`FacilitatorService`), or over HTTP (`make_app`, `serve`)."""
