output "buckets" {
  description = "Use (data, ray, mlflow) to the bucket's name and ARN."
  value       = { for use, bucket in aws_s3_bucket.this : use => { name = bucket.id, arn = bucket.arn } }
}
