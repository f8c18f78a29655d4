"""A store in a bucket; the only user of boto3."""
