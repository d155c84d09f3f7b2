# Pods of the service account `store` read and write the bucket by pod identity, so the cluster holds no keys.
data "aws_iam_policy_document" "pod" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "store" {
  statement {
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.store.arn]
  }
  statement {
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.store.arn}/*"]
  }
}

resource "aws_iam_role" "store" {
  name               = "cots-${var.environment}-store"
  assume_role_policy = data.aws_iam_policy_document.pod.json
}

resource "aws_iam_role_policy" "store" {
  name   = "bucket"
  role   = aws_iam_role.store.id
  policy = data.aws_iam_policy_document.store.json
}

resource "aws_eks_pod_identity_association" "store" {
  cluster_name    = aws_eks_cluster.cluster.name
  namespace       = "cots"
  service_account = "store"
  role_arn        = aws_iam_role.store.arn
}

# The storage add-on creates disks, among them that of the claim `project`.
resource "aws_iam_role" "volumes" {
  name               = "cots-${var.environment}-volumes"
  assume_role_policy = data.aws_iam_policy_document.pod.json
}

resource "aws_iam_role_policy_attachment" "volumes" {
  role       = aws_iam_role.volumes.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"
}

resource "aws_eks_pod_identity_association" "volumes" {
  cluster_name    = aws_eks_cluster.cluster.name
  namespace       = "kube-system"
  service_account = "ebs-csi-controller-sa"
  role_arn        = aws_iam_role.volumes.arn
}
